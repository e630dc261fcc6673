import CLinux

/// What the node says of itself on standard error: one JSON object a line, with `time` and `event`.
package struct ControlLog: Sendable {
    private let descriptor: Int32
    package init(descriptor: Int32 = 2) { self.descriptor = descriptor }

    /// Control thread only.
    package func say(_ event: String, _ message: String? = nil, _ fields: (inout JSONLine) -> Void = { _ in }) {
        write(ControlLog.line(event, message, time: cl_wall_clock(), fields))
    }

    package static func line(
        _ event: String, _ message: String?, time: UInt64, _ fields: (inout JSONLine) -> Void = { _ in }
    ) -> [UInt8] {
        var line = JSONLine()
        line.open()
        line.key("time")
        line.timestamp(time)
        line.field("event", event)
        if let message { line.field("message", message) }
        fields(&line)
        line.close()
        line.newline()
        return line.bytes
    }

    /// For people, before the node is ready.
    package func text(_ text: String) { write(Array(text.utf8)) }

    private func write(_ bytes: [UInt8]) {
        _ = bytes.withUnsafeBytes { cl_write_all(descriptor, $0.baseAddress, $0.count) }
    }
}
