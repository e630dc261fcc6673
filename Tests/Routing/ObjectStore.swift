import Pipeline

@testable import PipelineRouting

/// Desired state in memory: what a node keeps on disk.
final class ObjectStore: DesiredObjects {
    private(set) var texts: [StateKind: [String: [UInt8]]] = [:]

    func text(_ kind: StateKind, _ id: Bytes) -> UnsafeRawBufferPointer? {
        guard let text = texts[kind]?[String(decoding: id, as: UTF8.self)] else { return nil }
        return kept(text)
    }

    func forEach(_ kind: StateKind, _ body: (Bytes, UnsafeRawBufferPointer) -> Void) {
        for (id, text) in (texts[kind] ?? [:]).sorted(by: { $0.key < $1.key }) {
            Array(id.utf8).withUnsafeBufferPointer { body($0, kept(text)) }
        }
    }

    /// Texts live as long as the store.
    private var pieces: [UnsafeMutableRawBufferPointer] = []
    private func kept(_ text: [UInt8]) -> UnsafeRawBufferPointer {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: text.count, alignment: 1)
        copy.copyBytes(from: text)
        pieces.append(copy)
        return UnsafeRawBufferPointer(copy)
    }
    deinit { for piece in pieces { piece.deallocate() } }

    /// Puts an object, or several of one id; nil takes it away. True: that is another than before.
    func set(_ kind: StateKind, _ id: String, _ objects: [String]) -> Bool {
        let text = objects.isEmpty ? nil : Array(objects.joined(separator: ",").utf8)
        guard texts[kind]?[id] != text else { return false }
        texts[kind, default: [:]][id] = text
        return true
    }

    /// The whole document.
    var document: String {
        func list(_ kind: StateKind) -> [String] {
            (texts[kind] ?? [:]).sorted { $0.key < $1.key }.map { String(decoding: $0.value, as: UTF8.self) }
        }
        return documentText(
            orgs: list(.org), envObjects: list(.env), instances: list(.instance), routes: list(.route),
            hostnames: list(.hostname))
    }
}
