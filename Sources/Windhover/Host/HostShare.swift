internal import CHost

/// What of the host's memory and processors this process may have: in a container, or under a limit of a service's, less than there is.
///
/// Source: [LINUX-CGROUP2], [LINUX-CGROUP1].
struct HostShare {
    /// A file's text; empty where there is none. For tests.
    var read: (String) -> String = { String(decoding: (try? HostFile.contents(of: $0, limit: 64 << 10)) ?? [], as: UTF8.self) }

    /// Bytes that programs can be given without others being pushed out; nil where the host does not say. Source: [LINUX-PROC].
    var availableMemory: UInt64? {
        var facts = HostFacts()
        facts.readMemory(read("/proc/meminfo"))
        guard facts.memoryAvailable > 0 else { return nil }
        var least = facts.memoryAvailable
        for group in unifiedGroups { least = min(least, room(in: group, "memory.max", "memory.current", "inactive_file") ?? least) }
        for group in groups(of: "memory") {
            least = min(least, room(in: group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file") ?? least)
        }
        return least
    }

    /// What is left of a control group's limit; nil where it has none. Pages of files that nobody has used lately make room when it is needed.
    private func room(in directory: String, _ limit: String, _ usage: String, _ reclaimable: String) -> UInt64? {
        guard let most = number("\(directory)/\(limit)") else { return nil }
        let used = number("\(directory)/\(usage)") ?? 0
        let words = read("\(directory)/memory.stat").split(separator: "\n").map { $0.split(separator: " ") }
        let cached = words.first { $0.count == 2 && $0[0] == reclaimable }.flatMap { UInt64($0[1]) } ?? 0
        let taken = used > cached ? used - cached : 0
        return most > taken ? most - taken : 0
    }

    /// Processors that this process gets.
    /// - Parameter allowed: those that it may run on.
    func processors(of allowed: Int) -> Int {
        var least = max(allowed, 1)
        for directory in unifiedGroups {
            let words = read("\(directory)/cpu.max").split(whereSeparator: { $0 == " " || $0 == "\n" })
            if words.count == 2 { least = min(least, Self.processors(quota: UInt64(words[0]), period: UInt64(words[1])) ?? least) }
        }
        for directory in groups(of: "cpu") {
            let (quota, period) = (number("\(directory)/cpu.cfs_quota_us"), number("\(directory)/cpu.cfs_period_us"))
            least = min(least, Self.processors(quota: quota, period: period) ?? least)
        }
        return least
    }

    /// Whole ones, the last in part.
    private static func processors(quota: UInt64?, period: UInt64?) -> Int? {
        guard let quota, let period, quota > 0, period > 0 else { return nil }
        let count = quota / period + (quota % period == 0 ? 0 : 1)
        return Int(clamping: count)
    }

    /// nil for words such as `max`, and for -1.
    private func number(_ path: String) -> UInt64? { UInt64(read(path).prefix { $0 != "\n" }) }

    // MARK: Control groups

    /// Of the one hierarchy for all that there is today: this process's group and those above it, up to what is mounted here.
    private var unifiedGroups: [String] {
        guard let line = memberships.first(where: { $0.controllers.isEmpty }) else { return [] }
        return Self.chain(line.path).map { "/sys/fs/cgroup\($0)" }
    }

    /// Of the older hierarchies, which have a controller each, or two.
    private func groups(of controller: String) -> [String] {
        guard let line = memberships.first(where: { $0.controllers.split(separator: ",").contains(controller[...]) }) else { return [] }
        return Self.chain(line.path).map { "/sys/fs/cgroup/\(line.controllers)\($0)" }
    }

    private var memberships: [(controllers: Substring, path: Substring)] {
        read("/proc/self/cgroup").split(separator: "\n").compactMap { line in
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            return parts.count == 3 ? (parts[1], parts[2]) : nil
        }
    }

    /// `/a/b`, `/a` and the root: in a container that root is its own, and the others may not be there.
    private static func chain(_ path: Substring) -> [Substring] {
        var rest = path.hasSuffix("/") ? path.dropLast() : path
        var all = [rest]
        while let slash = rest.lastIndex(of: "/"), all.count < 64 {
            rest = rest[..<slash]
            all.append(rest)
        }
        return all
    }
}

extension HostFacts {
    /// Bytes that guests of this process's can be given; nil where the host does not say.
    package static func availableMemory() -> UInt64? { HostShare().availableMemory }

    /// Processors that this process gets.
    package static func processorCount() -> Int { HostShare().processors(of: Int(chost_processor_count())) }
}
