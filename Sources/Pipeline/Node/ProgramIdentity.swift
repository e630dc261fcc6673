import Pipeline
import PipelineLanguage

/// Whether two programs treat connections alike: what they were compiled to, without `node`, and what the files hold that
/// they were compiled from. Files of routes are routes.
struct ProgramIdentity: Equatable {
    private let text: String
    private let files: [String: UInt64]

    static let none = ProgramIdentity(text: "", files: [:])

    private init(text: String, files: [String: UInt64]) { (self.text, self.files) = (text, files) }

    init(_ program: Program, _ read: ReadConfig) {
        text = describeAllButNode(program)
        var files = read.files
        for route in read.compilation.routes {
            guard let map = route.map else { continue }
            files[configPath(map.path.value, from: read.compilation.source.file(of: map.path.span.start))] = nil
        }
        self.files = files
    }
}

/// Digests of the files that a compilation has read.
final class FilesSeen {
    private(set) var digests: [String: UInt64] = [:]
    /// Not secret: who can write these files can do more.
    private static let seed = HashSeed(0x636F_6E66_6967, 0x6669_6C65)

    func note(_ path: String, _ bytes: [UInt8]) -> [UInt8] {
        digests[path] = bytes.withUnsafeBufferPointer { SipHash.hash($0, seed: FilesSeen.seed) }
        return bytes
    }
}
