"""The zygote and its workers: one locked-down process for each model. No gRPC, no protobuf."""
