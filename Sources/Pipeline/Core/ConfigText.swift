/// A word of the source as messages show it: quoted, and cut if it is long.
public func quoted(_ text: String) -> String { text.count <= 64 ? "`\(text)`" : "`\(text.prefix(60))…`" }

/// `a`, `a or b`, `a, b or c`.
public func orList(_ items: [String]) -> String {
    guard let last = items.last, items.count > 1 else { return items.first ?? "" }
    return items.dropLast().joined(separator: ", ") + " or " + last
}

/// The same with `and`.
public func andList(_ items: [String]) -> String {
    guard let last = items.last, items.count > 1 else { return items.first ?? "" }
    return items.dropLast().joined(separator: ", ") + " and " + last
}

/// A word in quotes, as a config has it.
public func quotedWord(_ text: String) -> String {
    var escaped = ""
    for scalar in text.unicodeScalars {
        if scalar == "\\" || scalar == "\"" { escaped.unicodeScalars.append("\\") }
        escaped.unicodeScalars.append(scalar)
    }
    return "\"\(escaped)\""
}
