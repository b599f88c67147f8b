"""The engine as a server of its own, with which any app of an Inngest SDK registers."""
