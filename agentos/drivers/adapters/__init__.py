"""drivers/adapters"""
