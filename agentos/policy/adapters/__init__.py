"""policy/adapters"""
