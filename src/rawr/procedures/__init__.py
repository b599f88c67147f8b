"""The procedures of an HQ: their contract, their handlers, and the document that publishes them.

`rawr.procedures.catalog` lists them; nothing is imported from here, so that the contract stays light.
"""
