"""How is an English word that is in no dictionary pronounced?

alignment   which phones each letter stands for
words       the dictionary as arrays, its batches, and the figures of answers
model       the network: an encoder of letters, and a decoder of what each stands for
decoding    the most probable pronunciations, and what is served
training    trains a network on targets of one kind or another
student     a small network that learns from a large one
"""
