"""Kills at random while a study runs on the testbed, and the comparison with one left alone."""
