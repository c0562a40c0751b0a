def dry_run(config):
    return []
