import Pipeline

/// The readers of words that filters read as well.
typealias Value = ConfigValue
