-- Keeps an event for a partition, once, and tells its owner.
-- KEYS: the partition. ARGV: the origin's number, the event's number, the event, the prefix of channels, the head of the
-- message.
local now = redis.call('HMGET', KEYS[1], 'owner', 'f' .. ARGV[1])
if not now[1] then
  return {'unowned'}
end
local last, number = tonumber(now[2] or 0), tonumber(ARGV[2])
if number <= last then
  return {'done'}
end
if number > last + 1 then
  return {'gap', last}
end
redis.call('HSET', KEYS[1], 'f' .. ARGV[1], number, 'i' .. ARGV[1] .. ':' .. number, ARGV[3])
redis.call('PUBLISH', ARGV[4] .. now[1], ARGV[5] .. ARGV[3])
return {'done'}
