-- Payloads that Trigger.dev's SDK stores apart, since they are large, before it triggers by their ids;
-- kind is the type of its content. A run has its payload itself: a packet is forgotten after a day.
CREATE TABLE trigger_dev_packets (
    id          text COLLATE "C" PRIMARY KEY,
    kind        text NOT NULL,
    data        bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
