-- A worker that is asked to end, as by a deploy: whatever ends it then, no run of its is to blame.
ALTER TABLE workers ADD stopping boolean NOT NULL DEFAULT false;
