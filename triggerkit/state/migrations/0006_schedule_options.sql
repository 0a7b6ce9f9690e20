-- What a scheduled task declares for triggers that do not say holds for its ticks, too.
ALTER TABLE schedules ADD ttl_s float, ADD priority int NOT NULL DEFAULT 0;
