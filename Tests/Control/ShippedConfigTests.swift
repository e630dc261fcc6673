import Foundation
import PipelineNode
import Testing

/// What we ship loads where it lies, with every file that it names: `pipelined check config/NAME` is what a newcomer tries.
@Suite struct ShippedConfigTests {
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("config").path

    static let files = ((try? FileManager.default.subpathsOfDirectory(atPath: folder)) ?? []).filter { path in
        // What an `include` reads is a part.
        path.hasSuffix(".pipeline") && !path.contains(".d/")
    }.sorted()

    @Test("config/*.pipeline load as they are shipped, without a remark", arguments: files)
    func loads(_ name: String) throws {
        let loaded = try ConfigLoader.load("\(Self.folder)/\(name)")
        #expect(loaded.diagnosticText == "" && loaded.leftOut == 0)
        #expect(loaded.node != nil)
    }

    @Test("they are found") func found() { #expect(Self.files.count >= 8, "\(Self.files)") }
}
