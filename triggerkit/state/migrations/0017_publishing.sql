-- Who last changed the publication, and its row for the relation: what they tell of may have been less in
-- between. NULL for what was looked at before this was kept.
ALTER TABLE published ADD publication_xmin text, ADD membership_xmin text;
