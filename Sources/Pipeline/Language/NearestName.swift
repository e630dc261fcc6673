/// The candidate that `name` most likely misspells or abbreviates; nil if none is near. Ties go to the first.
func nearest(to name: String, among candidates: some Collection<String>) -> String? {
    let wanted = Array(name.lowercased().utf8)
    // Longer than any name of the language: not worth a comparison that grows with the square of its length.
    guard !wanted.isEmpty, wanted.count <= 64 else { return nil }
    let allowed = max(1, wanted.count / 3)
    var best: (distance: Int, name: String)?
    for candidate in candidates where candidate != name {
        let other = Array(candidate.lowercased().utf8)
        guard abs(other.count - wanted.count) <= allowed else { continue }
        let distance = editDistance(wanted, other)
        if distance <= allowed, distance < best?.distance ?? .max { best = (distance, candidate) }
    }
    if let best { return best.name }
    // `tls` for `tls_passthrough`: the start of exactly one name.
    let longer = wanted.count >= 3 ? candidates.filter { $0.utf8.starts(with: wanted) && $0 != name } : []
    return longer.count == 1 ? longer[0] : nil
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
func editDistance(_ a: [UInt8], _ b: [UInt8]) -> Int {
    var beforeLast: [Int] = []
    var last = Array(0...b.count)
    for i in 0..<a.count {
        var row = [i + 1]
        for j in 0..<b.count {
            var cost = min(last[j] + (a[i] == b[j] ? 0 : 1), last[j + 1] + 1, row[j] + 1)
            if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { cost = min(cost, beforeLast[j - 1] + 1) }
            row.append(cost)
        }
        beforeLast = last
        last = row
    }
    return last[b.count]
}

/// `did you mean ...?` if a candidate is near.
func misspelling(of name: String, among candidates: some Collection<String>) -> String? {
    nearest(to: name, among: candidates).map { "did you mean `\($0)`?" }
}
