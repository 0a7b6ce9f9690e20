"""Record what runs say: lines, spans, tags and metadata, and OpenTelemetry."""
