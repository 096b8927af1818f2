from hypothesis import settings

# A busy machine is slow now and then; that is no defect of a rule.
settings.register_profile("billing", deadline=None)
settings.load_profile("billing")
