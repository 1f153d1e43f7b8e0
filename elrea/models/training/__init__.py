"""Training one adapter: settings, schedule, Lightning module, checkpoints."""
