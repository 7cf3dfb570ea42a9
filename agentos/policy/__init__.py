"""What may happen: Rego decides every syscall, every change of the configuration and every command.

    factory = EmbeddedFactory()
    modules = [*axioms(), *policy_modules(resources, "default")]
    decider = await Decider.load(factory, modules, build_data(resources, "default", granted_by={}))
    decision = await decider.decide_syscall(document)   # schemas/v1/policy-input.json → Decision

`port` is what an engine must do, `adapters` are the engines, `bundle` the modules, `data` the facts, `decide` the questions,
`lint` what is wrong with a policy before it is loaded, `testing` the runner of Rego tests.

>>> from agentos.policy import Module
>>> Module("a.rego", "package a").path
'a.rego'
"""

from agentos.policy.port import Module, PolicyEngine, PolicyEngineFactory

__all__ = ["Module", "PolicyEngine", "PolicyEngineFactory"]
