package agentos.syscall.rules.care

results contains {"rule": "care.no", "effect": "deny", "reason": "no"} if input.now > 1
