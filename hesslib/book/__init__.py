"""The book kit: parameters, stored results, figures."""
