# SPDX-License-Identifier: Apache-2.0
"""The typed client of Novita's API. It uses upstream's terms and no statuses of novitai's own."""
