/// A duration for people: `3d 4h`, `5m 12s`, `8s`.
package func plainDuration(_ seconds: UInt64) -> String {
    switch seconds {
    case 0..<60: "\(seconds)s"
    case 60..<3600: "\(seconds / 60)m \(seconds % 60)s"
    case 3600..<86400: "\(seconds / 3600)h \(seconds % 3600 / 60)m"
    default: "\(seconds / 86400)d \(seconds % 86400 / 3600)h"
    }
}

/// `1.5 GiB`, `812 B`.
package func plainBytes(_ bytes: Int64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    var value = Double(bytes)
    var unit = 0
    while value >= 1023.95, unit + 1 < units.count {
        value /= 1024
        unit += 1
    }
    guard unit > 0 else { return "\(bytes) B" }
    let tenths = Int64((value * 10).rounded())
    return "\(tenths / 10).\(tenths % 10) \(units[unit])"
}
