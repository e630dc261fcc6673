import Foundation

/// The vectors that this project shares with others: `../shared/vectors` beside the checkout, or the folder that
/// `PIPELINED_VECTORS` names. Absent on a checkout of its own; tests say so and skip.
package enum Vectors {
    package static let folder: URL? = {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let named = ProcessInfo.processInfo.environment["PIPELINED_VECTORS"].map { URL(fileURLWithPath: $0) }
        let folder = named ?? root.deletingLastPathComponent().appendingPathComponent("shared/vectors")
        return FileManager.default.fileExists(atPath: folder.path) ? folder : nil
    }()

    package static var arePresent: Bool { folder != nil }

    /// One file's array of objects, as JSON values.
    package static func load(_ file: String) throws -> [[String: Any]] {
        guard let folder else { return [] }
        let data = try Data(contentsOf: folder.appendingPathComponent(file))
        return try JSONSerialization.jsonObject(with: data) as? [[String: Any]] ?? []
    }
}

/// Bytes from a string of hex digits; nil if it is none.
package func bytes(hex: String) -> [UInt8]? {
    let digits = hex.utf8.compactMap { Character(UnicodeScalar($0)).hexDigitValue.map(UInt8.init) }
    guard digits.count == hex.utf8.count, digits.count % 2 == 0 else { return nil }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}
