import Testing

@testable import Windhover

/// Hosts and containers, as their files describe them.
@Suite struct HostShareTests {
    static let memory = ["/proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n"]

    func share(_ files: [String: String]) -> HostShare {
        let files = Self.memory.merging(files) { $1 }
        return HostShare { files[$0] ?? "" }
    }

    @Test func withoutLimitsThereIsTheHost() {
        #expect(share([:]).availableMemory == 8 << 30)
        #expect(share([:]).processors(of: 6) == 6 && share([:]).processors(of: 0) == 1)
        let none = ["/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/cpu.max": "max 100000\n"]
        #expect(share(none).availableMemory == 8 << 30 && share(none).processors(of: 6) == 6)
        #expect(HostShare { _ in "" }.availableMemory == nil)
        #expect(HostShare { _ in ":::\n/\n1:memory\n2:cpu:" }.processors(of: 3) == 3)
    }

    /// A container's own group is the root of what it sees.
    @Test func aContainer() {
        let files = [
            "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "1073741824\n", "/sys/fs/cgroup/memory.current": "536870912\n",
            "/sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 268435456\nactive_file 5\n", "/sys/fs/cgroup/cpu.max": "150000 100000\n",
        ]
        #expect(share(files).availableMemory == 768 << 20)
        #expect(share(files).processors(of: 8) == 2 && share(files).processors(of: 1) == 1)
        // More in use than the limit, which was lowered.
        #expect(share(files.merging(["/sys/fs/cgroup/memory.max": "1048576"]) { $1 }).availableMemory == 0)
    }

    /// The narrowest of the groups above counts.
    @Test func aServiceInASlice() {
        let files = [
            "/proc/self/cgroup": "0::/a.slice/b.service\n", "/sys/fs/cgroup/a.slice/b.service/memory.max": "max\n",
            "/sys/fs/cgroup/a.slice/memory.max": "2147483648\n", "/sys/fs/cgroup/a.slice/memory.current": "0\n",
            "/sys/fs/cgroup/a.slice/b.service/cpu.max": "400000 100000\n", "/sys/fs/cgroup/a.slice/cpu.max": "50000 100000\n",
        ]
        #expect(share(files).availableMemory == 2 << 30)
        #expect(share(files).processors(of: 8) == 1)
    }

    @Test func theOlderHierarchies() {
        let files = [
            "/proc/self/cgroup": "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n",
            // The path is the host's; here its own group is at the root.
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n", "/sys/fs/cgroup/memory/memory.usage_in_bytes": "73741824\n",
            "/sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 0\n",
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n", "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        ]
        #expect(share(files).availableMemory == 1_000_000_000)
        #expect(share(files).processors(of: 8) == 3)
        let unlimited = ["/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n"]
        #expect(share(files.merging(unlimited) { $1 }).availableMemory == 8 << 30)
        #expect(share(files.merging(unlimited) { $1 }).processors(of: 8) == 8)
    }
}
