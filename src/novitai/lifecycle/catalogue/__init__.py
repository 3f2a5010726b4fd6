# SPDX-License-Identifier: Apache-2.0
"""What Novita offers: products, templates and clusters, from caches."""
