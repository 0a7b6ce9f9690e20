"""Finds notes by meaning: `python search.py WORDS`."""

import os
import sys

import psycopg

from ollama import embed

NEAREST = """
SELECT n.id, n.body FROM note_embeddings AS e JOIN notes AS n ON n.id = e.note_id
ORDER BY e.embedding <=> %s::vector LIMIT 3
"""

if __name__ == "__main__":
    [vector] = embed([" ".join(sys.argv[1:])])
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        for note_id, body in connection.execute(NEAREST, [str(vector)]):
            print(f"{note_id}. {body}")
