import Pipeline

/// When an env claimed a name: lower is earlier, any number is earlier than none (R5).
struct ClaimRank: Comparable {
    let number: UInt64?
    static func < (a: ClaimRank, b: ClaimRank) -> Bool {
        switch (a.number, b.number) {
        case (let a?, let b?): a < b
        case (_?, nil): true
        case (nil, _): false
        }
    }
}

/// Decides which entries of `hostnames` hold: earliest first, each unless an earlier one of another env conflicts (R4,
/// R5). Conflicts of equal rank are decided by the applied owner, or not at all.
struct HostnameEntries {
    struct Entry {
        enum State { case open, granted, another, contested }
        let name: UInt32
        let env: UInt32
        let rank: ClaimRank
        let place: Place
        /// The next one of its name.
        var next = NameBook.none
        var state = State.open
        /// From the previous document, so not reported for this one.
        var isKept = false
    }

    private(set) var list: [Entry] = []
    /// Of names with several entries, all but the first, by name and env.
    private var later: [UInt64: Int] = [:]
    private var firsts: [UInt32: Int] = [:]

    /// Adds an entry. Of two for the same pair the earlier counts; false: there was one.
    mutating func add(_ name: UInt32, _ env: UInt32, _ rank: ClaimRank, _ place: Place, _ book: NameBook) -> Bool {
        let head = book.names[Int(name)].entries
        var entry = Entry(name: name, env: env, rank: rank, place: place)
        if let known = find(name, env, head: head) {
            entry.next = list[known].next
            if rank < list[known].rank { list[known] = entry }
            return false
        }
        entry.next = head
        if head != NameBook.none {
            if entry.next == head, list[Int(head)].next == NameBook.none { firsts[name] = Int(head) }
            later[UInt64(name) << 32 | UInt64(env)] = list.count
        }
        book.names[Int(name)].entries = UInt32(list.count)
        list.append(entry)
        return true
    }

    mutating func reserveCapacity(_ count: Int) { list.reserveCapacity(count) }

    func has(_ name: UInt32, _ env: UInt32, _ book: NameBook) -> Bool {
        find(name, env, head: book.names[Int(name)].entries) != nil
    }

    /// The entry that was added last is one of the last document's.
    mutating func markKept() { list[list.count - 1].isKept = true }

    private func find(_ name: UInt32, _ env: UInt32, head: UInt32) -> Int? {
        guard head != NameBook.none else { return nil }
        if list[Int(head)].env == env { return Int(head) }
        if let found = later[UInt64(name) << 32 | UInt64(env)] { return found }
        // The first that there was is the last of the list, and not among the later ones.
        return firsts[name].flatMap { list[$0].env == env ? $0 : nil }
    }

    /// - Parameter hadIt: whether the env had the name when the last change was applied.
    mutating func resolve(_ book: NameBook, hadIt: (_ name: UInt32, _ env: UInt32) -> Bool) {
        var involved = entriesInvolved(book)
        for index in list.indices where !involved[index] { grant(index, book) }
        // Most documents have no clash: nothing is sorted then.
        var order = list.indices.filter { involved[$0] }
        involved = []
        order.sort { list[$0].rank < list[$1].rank }
        var start = 0
        while start < order.count {
            var end = start
            while end < order.count, list[order[end]].rank == list[order[start]].rank { end += 1 }
            resolve(level: order[start..<end], book, hadIt)
            start = end
        }
    }

    /// Entries that may clash with others.
    private func entriesInvolved(_ book: NameBook) -> [Bool] {
        var involved = [Bool](repeating: false, count: list.count)
        func involve(_ name: UInt32) {
            var entry = book.names[Int(name)].entries
            while entry != NameBook.none {
                involved[Int(entry)] = true
                entry = list[Int(entry)].next
            }
        }
        var isPatternInvolved = Set<UInt32>()
        for (index, entry) in list.enumerated() {
            let name = book.names[Int(entry.name)]
            if name.entries != UInt32(index) || entry.next != NameBook.none { involved[index] = true }
            for pattern in book.above(entry.name) where book.names[Int(pattern)].entries != NameBook.none {
                involved[index] = true
                if isPatternInvolved.insert(pattern).inserted { involve(pattern) }
            }
        }
        return involved
    }

    private mutating func resolve(
        level: ArraySlice<Int>, _ book: NameBook, _ hadIt: (UInt32, UInt32) -> Bool
    ) {
        // Against earlier ones.
        var rest: [Int] = []
        for index in level {
            switch book.standing(list[index].name, list[index].env) {
            case .another: list[index].state = .another
            case .contested: list[index].state = .contested
            case .free, .owned: rest.append(index)
            }
        }
        var unclear = level.filter { list[$0].state == .contested }
        // Those who had the name are before those who hadn't; they never clash among themselves.
        let had = rest.filter { hadIt(list[$0].name, list[$0].env) }
        for index in had { grant(index, book) }
        if !had.isEmpty {
            rest.removeAll { list[$0].state == .granted }
            rest.removeAll { index in
                guard book.standing(list[index].name, list[index].env) == .another else { return false }
                list[index].state = .another
                return true
            }
        }
        // Remaining conflicts go to none.
        var marks = ClashMarks(book)
        for index in rest + unclear { marks.add(list[index].name, list[index].env) }
        let clear = rest.filter { !marks.clash(list[$0].name, list[$0].env) }
        unclear += rest.filter { marks.clash(list[$0].name, list[$0].env) }
        for index in clear { grant(index, book) }
        for index in unclear {
            let (name, env) = (list[index].name, list[index].env)
            list[index].state = .contested
            book.names[Int(name)].contested.add(env)
            for below in book.sumsAbove(name) { book.belows[below].contested.add(env) }
        }
    }

    private mutating func grant(_ index: Int, _ book: NameBook) {
        let (name, env) = (list[index].name, list[index].env)
        list[index].state = .granted
        book.names[Int(name)].granted = env
        for below in book.sumsAbove(name) { book.belows[below].granted.add(env) }
    }
}

/// Which envs claim the same names, or names and the wildcards over them.
private struct ClashMarks {
    private let book: NameBook
    private var at: [UInt32: EnvMark] = [:]
    private var below: [UInt32: EnvMark] = [:]

    init(_ book: NameBook) { self.book = book }

    mutating func add(_ name: UInt32, _ env: UInt32) {
        at[name, default: .none].add(env)
        for pattern in book.above(name) { below[pattern, default: .none].add(env) }
    }

    func clash(_ name: UInt32, _ env: UInt32) -> Bool {
        if at[name]?.hasOther(than: env) == true || below[name]?.hasOther(than: env) == true { return true }
        return book.above(name).contains { at[$0]?.hasOther(than: env) == true }
    }
}

extension HostnameEntries {
    /// Envs of entries in that state at a name, or that it clashes with; but for `env`.
    func clashing(name: UInt32, env: UInt32?, _ book: NameBook, _ state: Entry.State) -> [UInt32] {
        var found: Set<UInt32> = []
        forEachClashing(name, env, book) { if $0.state == state { found.insert($0.env) } }
        return Array(found)
    }

    func clashing(_ entry: Entry, _ book: NameBook, _ state: Entry.State) -> [UInt32] {
        clashing(name: entry.name, env: entry.env, book, state)
    }

    /// Conflicts with an entry of equal rank: only the previous owner decides.
    func isUndecided(_ entry: Entry, _ book: NameBook) -> Bool {
        var found = false
        forEachClashing(entry.name, entry.env, book) { if $0.state == .granted, $0.rank == entry.rank { found = true } }
        return found
    }

    private func forEachClashing(_ name: UInt32, _ env: UInt32?, _ book: NameBook, _ body: (Entry) -> Void) {
        func visit(_ name: UInt32) {
            var number = book.names[Int(name)].entries
            while number != NameBook.none {
                let entry = list[Int(number)]
                if entry.env != env { body(entry) }
                number = entry.next
            }
        }
        visit(name)
        for pattern in book.above(name) { visit(pattern) }
        book.forEachBelow(name, visit)
    }
}
