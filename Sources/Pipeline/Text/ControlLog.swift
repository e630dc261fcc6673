import CLinux

/// The node's events on standard error: one JSON object a line, with `time` and `event`.
///
/// Threading: any; no caller waits for a reader.
package struct ControlLog: Sendable {
    /// Takes whole lines, from any thread, without blocking.
    package let write: @Sendable ([UInt8]) -> Void
    package init(_ write: @escaping @Sendable ([UInt8]) -> Void) { self.write = write }

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
    package func text(_ text: String) { if !text.isEmpty { write(Array(text.utf8)) } }
}
