"""Where figures are shown: one small adapter a tracker."""
