"""eventlog/adapters"""
