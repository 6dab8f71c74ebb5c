use super::*;

fn sample(route: RouteId, tenant: Option<&TenantId>, status: u16) -> Sample<'_> {
    let latency = Duration::from_millis(10);
    Sample { route, tenant, status, latency, bytes_in: 1, bytes_out: 100 }
}

#[test]
fn a_tenant_sees_its_own_traffic_only() {
    let analytics = Arc::new(Analytics::default());
    let (acme, other) = (TenantId::new("acme").unwrap(), TenantId::new("other").unwrap());
    let route = analytics.route("r", "s");
    assert_eq!(route, analytics.route("r", "s"));
    let recorders = [analytics.recorder(), analytics.recorder()];
    recorders[0].record(&sample(route, Some(&acme), 200));
    recorders[1].record(&sample(route, Some(&acme), 429));
    recorders[1].record(&sample(route, Some(&other), 500));
    recorders[1].record(&sample(route, None, 401));
    recorders.iter().for_each(Recorder::flush);
    let now = Timestamp(1_000_000_000);
    analytics.tick(now);
    for range in [Range::OneMinute, Range::OneHour] {
        let report = analytics.report(range, now, Some(&acme));
        let total = &report.total;
        assert_eq!((total.requests, total.limited, total.server_errors), (2, 1, 0));
        assert!(report.tenants.is_empty());
        let all = analytics.report(range, now, None);
        assert_eq!((all.total.requests, all.tenants["(other)"].requests), (4, 1));
        assert_eq!(all.services["s"].bytes_out, 400);
    }
    let later = analytics.report(Range::OneMinute, Timestamp(now.0 + 61_000), None);
    assert_eq!(later.total.requests, 0);
    assert_eq!(analytics.since_start()[0].1.requests, 4);
}

#[test]
fn labels_are_bounded() {
    let analytics = Arc::new(Analytics::default());
    let route = analytics.route("r", "s");
    let recorder = analytics.recorder();
    for n in 0..TENANTS_MAX + 500 {
        let tenant = TenantId::new(&format!("t{n}")).unwrap();
        recorder.record(&sample(route, Some(&tenant), 200));
        recorder.flush();
    }
    assert_eq!(analytics.totals.lock().since_start.len(), TENANTS_MAX + 1);
    assert_eq!(analytics.since_start()[0].1.requests, (TENANTS_MAX + 500) as u64);
}

#[test]
fn what_comes_late_is_added_to_a_second_that_is_over() {
    let analytics = Arc::new(Analytics::default());
    let route = analytics.route("r", "s");
    let recorder = analytics.recorder();
    for second in [1_000, 2_000, 1_000] {
        recorder.record(&sample(route, None, 200));
        recorder.flush();
        analytics.tick(Timestamp(second));
    }
    let report = analytics.report(Range::OneMinute, Timestamp(2_000), None);
    let points = report.series.iter().map(|point| (point.at.0, point.figures.requests));
    assert_eq!(points.collect::<Vec<_>>(), [(1_000, 2), (2_000, 1)]);
    assert_eq!(report.total.latency_ms_p50, report.series[0].figures.latency_ms_p50);
}
