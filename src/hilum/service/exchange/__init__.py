"""Results as FHIR and HL7 v2 for report systems, and covariates that a FHIR server has."""

from hilum.lazy import lazy_index

lazy_index(__name__)
