"""Parts of several kinds of problem: losses, label handling, operating points, averages, common metrics."""
