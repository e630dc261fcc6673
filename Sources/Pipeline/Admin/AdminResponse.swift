import Pipeline
import PipelineText

/// What goes back to a client: a first piece, and more of it while there is some. So a document of any size costs one
/// piece of memory. What has to look at very much before it can say anything is made in batches.
struct AdminResponse {
    var first: [UInt8]
    /// The next piece; nil: that was all.
    var more: (() -> [UInt8]?)?
    /// Goes on until about that instant; the response once it is there.
    var prepare: ((_ until: Instant) -> AdminResponse?)?

    init(_ bytes: [UInt8], more: (() -> [UInt8]?)? = nil) {
        first = bytes
        self.more = more
    }

    init(preparing prepare: @escaping (_ until: Instant) -> AdminResponse?) {
        first = []
        self.prepare = prepare
    }
}

extension AdminResponse {
    /// `{"error":"…","remedy":"…"}`.
    static func failure(_ problem: String, _ remedy: String) -> [UInt8] {
        var line = JSONLine()
        line.open()
        line.field("error", problem)
        line.field("remedy", remedy)
        line.close()
        line.newline()
        return line.bytes
    }

    static func text(_ text: String, exit: Int = 0) -> AdminResponse { AdminResponse(Array("\(exit)\n\(text)".utf8)) }
}
