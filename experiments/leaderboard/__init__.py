"""The leaderboard: points above the best tuned single adapter."""
