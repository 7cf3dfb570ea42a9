"""control/adapters"""
