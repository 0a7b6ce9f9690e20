"""Keeps a full-text index in step with `articles`."""

from pydantic import BaseModel

from search import opened_index
from triggerkit import Change, rows, task


class Article(BaseModel):
    """A row of `articles`."""

    id: int
    title: str = ""
    body: str = ""


@task(on=rows("public.articles", when_changed=["title", "body"]), batch_size=200)
def index_articles(batch: list[Change[Article]]) -> int:
    """Index a batch in one transaction of the index; a repeated or late change does no harm."""
    with opened_index() as index:
        for change in batch:
            position = change.metadata.position or 0
            if change.action == "truncate":
                index.execute("DELETE FROM articles WHERE position < ?", [position])
                continue
            article = change.record
            index.execute(
                "DELETE FROM articles WHERE rowid = ? AND position <= ?", [article.id, position]
            )
            if change.action != "delete":
                index.execute(
                    "INSERT OR IGNORE INTO articles (rowid, title, body, position) "
                    "VALUES (?, ?, ?, ?)",
                    [article.id, article.title, article.body, position],
                )
    return len(batch)
