"""The scripts of a package, which run a model without Isocenter, and the torch modules around its networks.

The files of this folder are copied into packages, with all that they import of ours.
"""
