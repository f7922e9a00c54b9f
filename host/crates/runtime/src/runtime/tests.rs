use super::*;

#[tokio::test]
async fn a_call_in_which_the_host_itself_fails_is_a_fault_of_its_plugin() {
    let faults = Arc::<Faults>::default();
    for k in 0..crate::limits::MAX_FAULTS {
        assert!(faults.suspended("wild").is_none(), "{k}");
        let call = RunningCall {
            task: tokio::spawn(async { panic!("as a defect of the host would") }),
            blame: Some((Arc::clone(&faults), "wild".to_owned())),
            cancel: CancellationToken::new(),
            clock: Arc::default(),
            sent: Arc::default(),
            read: Arc::default(),
            wall_time: Duration::from_secs(60),
            places: Arc::default(),
        };
        let result = call.result().await;
        assert!(!result.success && result.text.contains("the host failed"), "{result:?}");
    }
    assert!(faults.suspended("wild").is_some());
}
