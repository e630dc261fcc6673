/// No env, one env, or several: enough for rules between different envs.
struct EnvMark: Equatable {
    private static let noneMark = UInt32.max
    private static let severalMark = UInt32.max - 1
    private var mark = EnvMark.noneMark

    static let none = EnvMark()

    var isNone: Bool { mark == EnvMark.noneMark }

    /// True if this says something new.
    @discardableResult mutating func add(_ env: UInt32) -> Bool {
        let before = mark
        if isNone { mark = env } else if mark != env { mark = EnvMark.severalMark }
        return mark != before
    }

    @inline(__always) func hasOther(than env: UInt32) -> Bool { mark != EnvMark.noneMark && mark != env }
}
