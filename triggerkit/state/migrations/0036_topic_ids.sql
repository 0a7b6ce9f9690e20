-- Which topic of this name the offsets are of: one that was made anew has others. NULL: not known yet.
ALTER TABLE event_offsets ADD COLUMN topic_id text;
