import Foundation

/// The checked-in inputs of a fuzz target: `Fuzz/corpus/TARGET`. The unit tests replay them through the same function
/// that the fuzzer calls.
package enum Corpus {
    package struct Input: Sendable {
        /// Its file's name.
        package let name: String
        package let bytes: [UInt8]
        package init(name: String, bytes: [UInt8]) {
            self.name = name
            self.bytes = bytes
        }
    }

    /// The checkout.
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    /// `Fuzz`.
    package static let folder = root.appendingPathComponent("Fuzz")

    /// In the order of their names. Throws if there is no such corpus, or nothing in it: a replay of nothing proves nothing.
    package static func inputs(_ target: String) throws -> [Input] {
        let corpus = folder.appendingPathComponent("corpus/\(target)")
        let files = try FileManager.default.contentsOfDirectory(at: corpus, includingPropertiesForKeys: nil)
        guard !files.isEmpty else { throw CocoaError(.fileNoSuchFile) }
        return try files.sorted { $0.lastPathComponent < $1.lastPathComponent }.map {
            Input(name: $0.lastPathComponent, bytes: [UInt8](try Data(contentsOf: $0)))
        }
    }

    /// Calls `body` with every prefix and with one byte changed at every place, of inputs in the order of their size
    /// until `budget` calls were made.
    package static func forEachVariant(_ inputs: [Input], budget: Int, _ body: (Input) throws -> Void) rethrows {
        var left = budget
        for input in inputs.sorted(by: { $0.bytes.count < $1.bytes.count }) {
            for index in input.bytes.indices {
                guard left >= 2 else { return }
                left -= 2
                try body(Input(name: "\(input.name), first \(index) bytes", bytes: Array(input.bytes[..<index])))
                var changed = input.bytes
                // Another change at each place, so that digits, quotes and lengths all get their turn.
                changed[index] = [0, 0xFF, 0x80, 0x22, 0x7B, 0x20, 0x0A][index % 7] ^ (changed[index] & 1)
                try body(Input(name: "\(input.name), byte \(index) changed", bytes: changed))
            }
        }
    }
}
