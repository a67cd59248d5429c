"""What a platform team takes into its own stack: Grafana dashboards, Prometheus rules. Not part of the installed package."""
