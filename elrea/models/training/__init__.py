"""Training of one adapter: settings, schedule, LightningModule, loop, checkpoints."""
