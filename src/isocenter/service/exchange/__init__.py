"""Results as FHIR and HL7 v2 for report systems, and covariates that a FHIR server has."""
