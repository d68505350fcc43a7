"""PosGen for any position encoding: one small protocol, tasks that near tokens cannot solve, and a kept leaderboard."""
