"""Consumers and endpoints as they are declared, planned, made, edited, rewound and deleted."""
