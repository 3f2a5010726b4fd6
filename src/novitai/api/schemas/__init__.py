# SPDX-License-Identifier: Apache-2.0
"""Models of requests and responses. Each model both validates and documents."""
